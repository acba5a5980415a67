//! Where audit events ship to.
