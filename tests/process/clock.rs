//! A daemon that was down for so long that it does not believe the clock.

use std::{sync::Arc, time::Duration};

use mayfly::{
    broker::time::SystemClock,
    config::Engine,
    model::{Clock, Timestamp},
    server::{Dev, Server, host, prepare},
};
use tokio::sync::oneshot;

use super::rig::{Launch, arg, mayfly};

/// The system's clock, so many days ago.
#[derive(Debug)]
struct Ago(u64);

impl Clock for Ago {
    fn wall(&self) -> Timestamp {
        SystemClock.wall().before(Duration::from_secs(86_400 * self.0))
    }

    fn boot(&self) -> Duration {
        SystemClock.boot()
    }
}

/// Founds a store, with an operator, and serves it for a moment, so many days ago.
async fn founded(launch: &Launch, days: u64) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dev = Dev {
        data: launch.data(),
        port: 0,
        engine: Engine::Fjall,
        client_cas: Vec::new(),
        issuers: Vec::new(),
        unlimited: false,
    };
    let server = Server::build(prepare(&dev).expect("a folder"), Arc::new(Ago(days))).await.expect("serves");
    host::dev_operator(server.broker(), &launch.data()).await.expect("an operator");
    let (stop, stopped) = oneshot::channel::<()>();
    drop(stop);
    server.run_until(Arc::new(String::new), async { drop(stopped.await) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_starts_held_after_a_long_time_down_is_reached_over_tls_and_confirmed() {
    // Certificates of the daemon's own live 7 days, operators' 30: one that is lost is made anew on the host.
    for (days, is_recovered) in [(20, false), (40, true)] {
        let folder = tempfile::tempdir().expect("folder");
        let launch = Launch { folder: folder.path().into(), arguments: Vec::new(), config: None, program: None };
        founded(&launch, days).await;
        let mut operator = launch.data().join("operator");
        if is_recovered {
            let (data, out) = (launch.data(), folder.path().join("recovered"));
            let done = mayfly(&["operator", "recover", "admin", "--dev-data", arg(&data), "--out", arg(&out)]);
            assert_eq!(done.code, 0, "{done:?}");
            operator = out;
        }
        let mut process = launch.start().unwrap_or_else(|refused| panic!("{}", refused.stderr));
        let held = process.ask(&operator, &["--output", "json", "status"]);
        assert!(held.code == 0 && held.out.contains("\"held\":\"clock jump\""), "{days} days: {held:?}");
        let now = SystemClock.wall().rfc3339();
        let confirmed = process.ask(&operator, &["time", "confirm", "--now", &now, "--reason", "it was down"]);
        assert_eq!(confirmed.code, 0, "{days} days: {confirmed:?}");
        let goes_on = process.ask(&operator, &["--output", "json", "status"]);
        assert!(goes_on.code == 0 && goes_on.out.contains("\"held\":null"), "{days} days: {goes_on:?}");
        assert!(process.stop().success());
    }
}
