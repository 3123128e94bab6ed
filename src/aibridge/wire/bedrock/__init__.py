"""Claude at Amazon Bedrock: Messages in another envelope, put into it and out of it."""
