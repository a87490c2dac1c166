"""What is known: documents, chunking, embedding, vectors, graph, query, deletion."""
