//! CI jobs from outside: the holder beside the steps, and what this project gives to CI systems.

mod hand_on;
mod holder;
mod rig;
