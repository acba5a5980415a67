//! The threads of a server beside those that it is run on.
//!
//! Each group has a share of the processors by the system's scheduler, so that none waits behind the work of another:
//! proven callers are served by the runtime that the server is run on.

use std::{io, thread::available_parallelism};

use tokio::runtime::{Builder, Handle, Runtime};

use crate::api::listen::Workers;

/// Threads for the front and for operators. They end when this is dropped.
#[derive(Debug)]
pub(super) struct Threads {
    front: Option<Runtime>,
    operators: Option<Runtime>,
}

impl Threads {
    /// Starts them.
    ///
    /// # Errors
    /// When the system gives none.
    pub(super) fn start() -> io::Result<Self> {
        // Handshakes are most of what the front does, and half of the processors are enough for them.
        let front = available_parallelism().map_or(1, usize::from).div_ceil(2);
        Ok(Self {
            front: Some(runtime("front", front, FRONT_NICE)?),
            operators: Some(runtime("operators", OPERATORS, 0)?),
        })
    }

    /// Where connections are to live; proven callers on the runtime of who asks.
    pub(super) fn workers(&self) -> Workers {
        let callers = Handle::current();
        Workers {
            front: handle(self.front.as_ref(), &callers),
            operators: handle(self.operators.as_ref(), &callers),
            callers,
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // Not waited for: a drop may be within a runtime, which must not block.
        self.front.take().into_iter().chain(self.operators.take()).for_each(Runtime::shutdown_background);
    }
}

fn handle(own: Option<&Runtime>, other: &Handle) -> Handle {
    own.map_or(other, Runtime::handle).clone()
}

fn runtime(name: &str, threads: usize, nice: i32) -> io::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(threads).thread_name(format!("mayfly-{name}")).event_interval(EVENT_INTERVAL);
    builder.on_thread_start(move || {
        // Where the system refuses, all threads count the same.
        let _same = rustix::process::nice(nice);
    });
    builder.enable_all().build()
}

/// How many polls a busy thread makes before it looks for what has arrived: tokio's own 61 would let an arrival wait for
/// milliseconds where each poll signs something. A look costs a microsecond.
pub const EVENT_INTERVAL: u32 = 11;
/// Handshakes take a third of what established callers may, where both want all of it.
const FRONT_NICE: i32 = 5;
/// Two, so that a revoke does not wait for a long apply.
const OPERATORS: usize = 2;
