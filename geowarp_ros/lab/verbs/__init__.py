"""The verbs of ``geowarp`` that lead into the laboratory, one module each."""
