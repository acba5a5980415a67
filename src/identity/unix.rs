//! Callers on a Unix socket: the kernel says who they are.

use std::io;

use tokio::net::UnixStream;

use super::{Caller, Proof, UnixProof};

/// What the kernel says about the other end, as of its connect (`SO_PEERCRED`).
///
/// Not promised: that the process still lives, or that it did not hand the socket on.
///
/// # Errors
/// When the kernel does not say.
pub fn peer(stream: &UnixStream) -> io::Result<UnixProof> {
    let said = stream.peer_cred()?;
    Ok(UnixProof { uid: said.uid(), gid: said.gid(), pid: said.pid() })
}

/// The caller behind a Unix socket; its proof has no end of its own.
#[must_use]
pub fn caller(proof: UnixProof) -> Caller {
    Caller::new(Proof::Unix(proof), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_kernel_names_the_user_at_the_other_end() {
        let (ours, _theirs) = UnixStream::pair().expect("pair");
        let proof = peer(&ours).expect("credentials");
        assert_eq!(proof.uid, rustix::process::getuid().as_raw());
        assert_eq!(caller(proof).proof_text(), format!("uid:{}", proof.uid));
        assert_eq!(caller(proof).source_text(), "unix");
    }
}
