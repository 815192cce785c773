"""One round: who is invited, what is accepted, and the states it goes through."""
