"""The pages, one module each; `register` adds a module's routes to the blueprint."""
