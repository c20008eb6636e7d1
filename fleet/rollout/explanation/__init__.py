"""Why a rollout is where it is: in a sentence, by its devices, and with what an operator can do."""
