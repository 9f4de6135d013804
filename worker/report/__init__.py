"""`stratbox report`: a backtest as a page that needs nothing else, with figures computed from the printed equity."""
