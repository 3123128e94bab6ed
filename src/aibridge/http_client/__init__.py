"""HTTP/1.1 as a client: connections, requests, and answers as they come."""
