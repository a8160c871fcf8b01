"""What an operator declares, checked as a whole before any of it is stored."""
