//! On which threads a connection lives.
//!
//! Handshakes, and whoever has proven nothing, have threads of their own: however many come, the system's scheduler
//! keeps the others running. So do operators: what they end does not wait behind what others begin.

use std::{io, os::fd::AsFd, sync::Arc};

use tokio::{
    net::{TcpStream, UnixStream},
    runtime::Handle,
};

use crate::identity::Caller;

/// The threads of a server.
#[derive(Clone, Debug)]
pub struct Workers {
    /// Accepts, proves, and serves those who prove nothing.
    pub front: Handle,
    /// Serves proven callers.
    pub callers: Handle,
    /// Serves operators.
    pub operators: Handle,
}

/// Says whether a caller is an operator now.
pub type OperatorCheck = Arc<dyn Fn(&Caller) -> bool + Send + Sync>;

impl Workers {
    /// Everything on the threads of one runtime.
    #[must_use]
    pub fn all_on(handle: Handle) -> Self {
        Self { front: handle.clone(), callers: handle.clone(), operators: handle }
    }
}

/// A socket that can change its threads.
pub(super) trait Moved: Sized {
    /// The same socket, told of by the runtime that this is called on.
    fn moved(&self) -> io::Result<Self>;
}

impl Moved for TcpStream {
    fn moved(&self) -> io::Result<Self> {
        Self::from_std(self.as_fd().try_clone_to_owned()?.into())
    }
}

impl Moved for UnixStream {
    fn moved(&self) -> io::Result<Self> {
        Self::from_std(self.as_fd().try_clone_to_owned()?.into())
    }
}
