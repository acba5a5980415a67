//! The layers of the code are kept: arrows point down only, and each foreign library has its one place.
//!
//! ARCHITECTURE.md draws the layers; this reads `src/` and fails on an arrow that is not drawn.

#[cfg(test)]
#[path = "layers"]
mod layers {
    mod docs;
    mod laws;
    mod source;
}
