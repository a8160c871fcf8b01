"""What all regions share: the log, the registry client, the rules, control, and the node that runs the roles."""
