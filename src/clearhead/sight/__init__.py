"""What a model looks at while it computes: every attention of a forward pass, and where its positions lie."""
