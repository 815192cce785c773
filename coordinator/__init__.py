"""The service on the laptop: invites devices to rounds, accepts updates, keeps the model and the books."""
