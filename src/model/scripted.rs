//! A model that plays turns from a file: for deterministic tests of the loop, never for claims about the product.
