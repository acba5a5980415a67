//! The laws of the ledger, the same on every engine.

mod acts;
mod anchor;
mod appeals;
mod approve;
mod begins;
mod codec;
mod custody;
mod damage;
mod faults;
mod harness;
mod keys;
mod lanes;
mod laws;
mod model;
mod people;
mod reads;
mod room;
mod secrets;
mod sign_ins;
mod snapshots;
mod spend;
mod store_check;
mod tap;
mod tells;
mod upkeep;

/// Runs each law on each engine.
macro_rules! on_each_engine {
    ($($law:ident),* $(,)?) => {
        mod memory { $(#[test] fn $law() { super::$law(&mut super::Bed::new(super::Kind::Memory)); })* }
        mod fjall { $(#[test] fn $law() { super::$law(&mut super::Bed::new(super::Kind::Fjall)); })* }
        #[cfg(feature = "sled")]
        mod sled { $(#[test] fn $law() { super::$law(&mut super::Bed::new(super::Kind::Sled)); })* }
    };
}
use on_each_engine;
