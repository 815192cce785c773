"""What must survive: the database, the ledger, the devices."""
