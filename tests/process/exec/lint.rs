use super::rig::{Bench, run, tasks};
use crate::process::{
    rig::arg,
    world::{World, audience},
};

fn file(purpose: &str, action: &str, ttl: &str) -> String {
    format!(
        "[job.report]\ntenant = \"alpha\"\npartner = \"courier\"\npurpose = \"{purpose}\"\ndeadline = \"10m\"\n\
         workload = \"worker\"\n[[job.report.credential]]\nname = \"api\"\nkind = \"opaque\"\naudience = \"{}\"\n\
         actions = [\"{action}\"]\nttl = \"{ttl}\"\nbinding = \"none\"\nenv = \"T\"\nfile = \"token\"\n",
        audience("alpha"),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_the_file_runs_and_lint_says_beforehand_what_the_broker_will() {
    let world = World::new().await;
    let bench = Bench::new(&world).await;
    let path = bench.path("mayfly-job.toml");
    let operator = world.launch.data().join("operator");
    let lint = |more: &[&str]| world.process.ask(&operator, &[&["job", "lint", "-f", arg(&path)], more].concat());
    let job = || {
        let mut command = bench.bare();
        command.args(["--job", "report", "--", "sh", "-c", "test -n \"$T\" && test -s \"$MAYFLY_FILE_API\" && exit 3"]);
        run(command)
    };

    std::fs::write(&path, file("report", "read", "1m")).expect("written");
    let said = lint(&["--output", "json"]);
    assert!(said.code == 0 && said.out.contains("\"allowed\":true"), "{said:?}");
    assert!(tasks(&world).await.is_empty() && world.live().await == 0, "lint issues nothing");
    assert_eq!(job().code, 3);

    for (purpose, action, ttl, reason) in [
        ("report", "write", "1m", "ACTION_NOT_GRANTED"),
        ("deploy", "read", "1m", "PURPOSE_NOT_GRANTED"),
        ("report", "read", "2h", "TTL_TOO_LONG"),
    ] {
        std::fs::write(&path, file(purpose, action, ttl)).expect("written");
        let said = lint(&[]);
        assert!(said.code == 4 && said.out.contains(reason), "{said:?}");
        let said = job();
        assert!(said.code == 125 && said.errors.contains(reason), "{said:?}");
    }

    std::fs::write(&path, "[job.report]\ntenant = \"ALPHA\"\ncolour = \"red\"\n").expect("written");
    for said in [lint(&["--offline"]), job()] {
        assert!(matches!(said.code, 2 | 125), "{said:?}");
        for part in
            ["mayfly-job.toml:2: job.report.tenant", "mayfly-job.toml:3: job.report.colour", "partner: is missing"]
        {
            assert!(said.errors.contains(part), "{part}: {said:?}");
        }
    }
    // A workload may not ask what others may: lint is for operators.
    std::fs::write(&path, file("report", "read", "1m")).expect("written");
    let said = world.process.ask(bench.folder.path(), &["job", "lint", "-f", arg(&path)]);
    assert_eq!(said.code, 1, "{said:?}");
}
