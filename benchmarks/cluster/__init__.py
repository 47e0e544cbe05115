"""What another machine costs: asks and tells between nodes on a real Ray."""
