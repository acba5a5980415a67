//! CI jobs from outside: the holder beside the steps, and what this project gives to CI systems.

mod chains;
mod download;
mod github;
mod hand_on;
mod holder;
mod page;
mod rig;
mod snippets;
