"""Access tokens: verification with PyJWT and the issuers' key sets."""
