"""The way to a real broker. Only this folder loads paho."""
