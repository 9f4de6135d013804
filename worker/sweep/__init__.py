"""`stratbox sweep`: one strategy with every point of a grid, ranked, as files and as a picture."""
