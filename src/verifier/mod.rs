//! What a resource server links.
