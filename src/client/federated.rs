//! Calls that prove themselves with an identity token first, and with a task's key from then on (docs/federation.md).

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::Interceptor,
};
use zeroize::Zeroizing;

/// Metadata that names the task a call goes on with.
pub const TASK_METADATA: &str = "mayfly-task";

/// What a federated caller adds to its calls: `BrokerClient::with_interceptor(connection.channel(), calls.clone())`.
///
/// Cloning shares it. The connection must be opened with a key of its own (`Identity::ephemeral`).
#[derive(Clone, Default)]
pub struct FederatedCalls(Arc<Mutex<Carried>>);

#[derive(Default)]
struct Carried {
    bearer: Option<MetadataValue<Ascii>>,
    task: Option<MetadataValue<Ascii>>,
    /// No key of the connection's goes on in the token's place.
    is_keyless: bool,
}

/// A text that no metadata can carry: not of visible ASCII characters.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("is not of visible ASCII characters")]
pub struct NotCarried;

impl FederatedCalls {
    /// Calls with this identity token, as the platform gave it.
    ///
    /// # Errors
    /// When it is no token.
    pub fn new(token: &str) -> Result<Self, NotCarried> {
        let calls = Self::default();
        calls.carry_token(token)?;
        Ok(calls)
    }

    /// Calls with this identity token over a connection without a key, as one on a Unix socket is: the token is all that
    /// proves them, so it stays in every call. Only issuers whose tokens are good `until-expiry` are of use there.
    ///
    /// # Errors
    /// When it is no token.
    pub fn keyless(token: &str) -> Result<Self, NotCarried> {
        let calls = Self::new(token)?;
        calls.lock().is_keyless = true;
        Ok(calls)
    }

    /// From now on calls carry this identity token, in place of an older one.
    ///
    /// # Errors
    /// When it is no token.
    pub fn carry_token(&self, token: &str) -> Result<(), NotCarried> {
        let token = token.trim();
        if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(NotCarried);
        }
        let text = Zeroizing::new(format!("Bearer {token}"));
        let mut value = MetadataValue::try_from(text.as_str()).map_err(|_| NotCarried)?;
        value.set_sensitive(true);
        self.lock().bearer = Some(value);
        Ok(())
    }

    /// From now on calls go on with this task, which was opened over the same connection's key. A task that is held needs
    /// no token any more; of one that is not, or has no key ([`Self::keyless`]), the token still counts, so it goes along.
    ///
    /// # Errors
    /// When the id is none.
    pub fn carry_task(&self, task_id: &str, held: bool) -> Result<(), NotCarried> {
        let value = MetadataValue::try_from(task_id).map_err(|_| NotCarried)?;
        let mut carried = self.lock();
        carried.task = Some(value);
        if held && !carried.is_keyless {
            carried.bearer = None;
        }
        Ok(())
    }

    /// Whether calls carry an identity token.
    #[must_use]
    pub fn has_token(&self) -> bool {
        self.lock().bearer.is_some()
    }

    /// Whether calls carry a task and no identity token: then its key is all that proves them.
    #[must_use]
    pub fn goes_on_by_key(&self) -> bool {
        let carried = self.lock();
        carried.task.is_some() && carried.bearer.is_none()
    }

    fn lock(&self) -> MutexGuard<'_, Carried> {
        // Every change under the lock leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Interceptor for FederatedCalls {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let carried = self.lock();
        if let Some(bearer) = &carried.bearer {
            request.metadata_mut().insert("authorization", bearer.clone());
        }
        if let Some(task) = &carried.task {
            request.metadata_mut().insert(TASK_METADATA, task.clone());
        }
        drop(carried);
        Ok(request)
    }
}

impl fmt::Debug for FederatedCalls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let carried = self.lock();
        f.debug_struct("FederatedCalls")
            .field("token", &carried.bearer.is_some())
            .field("task", &carried.task)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(calls: &FederatedCalls) -> (Option<String>, Option<String>) {
        let request = calls.clone().call(Request::new(())).expect("passes");
        let text = |name| request.metadata().get(name).map(|value| value.to_str().expect("ASCII").to_owned());
        (text("authorization"), text(TASK_METADATA))
    }

    #[test]
    fn a_held_task_takes_the_tokens_place_and_one_that_is_not_goes_beside_it() {
        let calls = FederatedCalls::new("a.b.c\n").expect("a token");
        assert_eq!(sent(&calls), (Some("Bearer a.b.c".into()), None));
        calls.carry_task("t1", false).expect("an id");
        assert_eq!(sent(&calls), (Some("Bearer a.b.c".into()), Some("t1".into())));
        calls.carry_task("t1", true).expect("an id");
        assert_eq!(sent(&calls), (None, Some("t1".into())));
        for bad in ["", " ", "a b", "a\nb"] {
            assert_eq!(calls.carry_token(bad), Err(NotCarried), "{bad:?}");
        }
    }

    #[test]
    fn without_a_key_the_token_stays() {
        let calls = FederatedCalls::keyless("a.b.c").expect("a token");
        calls.carry_task("t1", true).expect("an id");
        assert_eq!(sent(&calls), (Some("Bearer a.b.c".into()), Some("t1".into())));
        assert!(!calls.goes_on_by_key());
        // Its successor, when the platform has renewed it.
        calls.carry_token("d.e.f").expect("a token");
        assert_eq!(sent(&calls).0, Some("Bearer d.e.f".into()));
    }

    #[test]
    fn the_token_is_not_shown() {
        let calls = FederatedCalls::new("hunter2.hunter2.hunter2").expect("a token");
        assert!(!format!("{calls:?}").contains("hunter2"));
    }
}
