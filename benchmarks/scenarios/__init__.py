"""Every trouble, over many seeds in virtual time: the cast, the seed's recipe, and a stack composed by hand."""
