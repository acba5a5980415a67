//! From the start of `mayfly exec` to the first sign of life of its command.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mayfly::client::pem;
use tempfile::TempDir;

use crate::Options;
use crate::report::{Measurement, Report};
use crate::rig::{AUDIENCE, Rig, STEADY};
use crate::series::Series;
use crate::support::{Fallible, binary};

/// One after the other: a bare command for comparison, then with three credentials in file, environment and endpoint.
pub async fn run(options: &Options, report: &mut Report) -> Fallible<()> {
    let rig = Rig::start(options).await?;
    let folder = identity(&rig)?;
    let bare = || Command::new("echo");
    let times = tokio::task::block_in_place(|| repeat(options.window() / 4, bare))?;
    report.add(Measurement::new("exec-bare-command", 1, &Series::of(times), rig.usage()?));
    let program = binary()?;
    let exec = || {
        let mut command = Command::new(&program);
        command.args(["exec", "--tenant", "t0", "--partner", STEADY, "--purpose", "report"]);
        command.arg("--server").arg(format!("https://{}", rig.daemon.address)).arg("--identity").arg(folder.path());
        for credential in ["name=a,kind=jwt,file=a", "name=b,kind=opaque,env=B", "name=c,kind=x509,endpoint"] {
            command.arg("--credential").arg(format!("{credential},audience={AUDIENCE},action=read"));
        }
        command.args(["--", "echo"]);
        command
    };
    let times = tokio::task::block_in_place(|| repeat(options.window(), exec))?;
    report.add(Measurement::new("exec", 1, &Series::of(times), rig.usage()?));
    Ok(())
}

/// Starts one after the other until `window` is over; each time until the first byte of output.
fn repeat(window: Duration, command: impl Fn() -> Command) -> Fallible<Vec<Duration>> {
    let (start, mut times) = (Instant::now(), Vec::new());
    while start.elapsed() < window {
        let mut command = command();
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let began = Instant::now();
        let mut child = command.spawn()?;
        let mut output = child.stdout.take().ok_or("no output")?;
        let read = output.read(&mut [0])?;
        times.push(began.elapsed());
        let done = child.wait_with_output()?;
        if read == 0 || !done.status.success() {
            return Err(format!("exec failed: {}", String::from_utf8_lossy(&done.stderr)).into());
        }
    }
    Ok(times)
}

/// The first workload's identity as files.
fn identity(rig: &Rig) -> Fallible<TempDir> {
    let folder = tempfile::Builder::new().prefix("mayfly-example-").tempdir()?;
    let own = rig.lane(0)?.identity();
    let write = |name: &str, text: &str| -> Fallible<()> {
        let file = folder.path().join(name);
        std::fs::write(&file, text)?;
        Ok(std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600))?)
    };
    write("cert.pem", &pem::encode_chain(&own.chain))?;
    write("key.pem", &pem::encode(pem::PRIVATE_KEY, own.key.secret_der()))?;
    write("ca.pem", &pem::encode_chain(&rig.daemon.roots()?))?;
    Ok(folder)
}
