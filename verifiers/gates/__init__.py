"""Gates: may this region leave? And covers, which ask before anything is changed whether it must be."""
