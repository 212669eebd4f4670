"""What a model is: the card, the graph file that holds it, and the models that come with the package."""
