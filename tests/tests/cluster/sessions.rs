//! Sessions with a container: logs, exec with and without a terminal, port-forward.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use penstock_tests::cluster::Cluster;

use super::Scenario;

pub const SCENARIOS: &[Scenario] = &[
    ("logs_are_shown_and_followed", logs),
    ("exec_runs_a_command_with_its_input_and_exit_code", exec),
    ("exec_gives_a_terminal", terminal),
    ("port_forward_carries_a_request", port_forward),
];

pub fn logs(cluster: &Cluster) -> Result<()> {
    let shown = cluster.kubectl(&["--namespace", "demo", "logs", "deployment/hello"])?;
    ensure!(shown.contains("serves HTTP on port 8080"), "the log says: {shown}");
    let pod = cluster.kubectl(&["--namespace", "demo", "get", "pods", "-o", "name"])?;
    let pod = pod.lines().next().context("the demo has no pods")?;
    let mut child = cluster
        .kubectl_command(&["--namespace", "demo", "logs", "-f", pod])
        .stdout(Stdio::piped())
        .stdin(Stdio::null())
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("kubectl has no output")?).lines();
    let first = lines.next().transpose();
    // What the container writes next must arrive on the open stream.
    let written = cluster.kubectl(&[
        "--namespace",
        "demo",
        "exec",
        pod,
        "--",
        "sh",
        "-c",
        "echo followed > /proc/1/fd/1",
    ]);
    let followed = written.is_ok().then(|| lines.next().transpose());
    child.kill()?;
    child.wait()?;
    written?;
    ensure!(
        first?.is_some_and(|line| line.contains("serves HTTP")),
        "the log does not begin with its first line"
    );
    let followed = followed.transpose()?.flatten();
    ensure!(followed.as_deref() == Some("followed"), "the stream went on with {followed:?}");
    Ok(())
}

pub fn exec(cluster: &Cluster) -> Result<()> {
    let said = cluster.kubectl_with(
        &["--namespace", "demo", "exec", "-i", "deploy/hello", "--", "cat"],
        "from outside\n",
    )?;
    ensure!(said == "from outside\n", "cat gave back {said:?}");
    let failed =
        cluster.kubectl(&["--namespace", "demo", "exec", "deploy/hello", "--", "sh", "-c", "exit 7"]);
    let failed = failed.err().context("exit 7 counted as success")?.to_string();
    ensure!(failed.contains("exit code 7"), "kubectl said: {failed}");
    Ok(())
}

fn terminal(cluster: &Cluster) -> Result<()> {
    // script(1) gives kubectl the terminal that -t needs.
    let line = format!(
        "kubectl --kubeconfig {} --namespace demo exec -it deploy/hello -- sh -c 'tty; echo width $(stty size)'",
        cluster.kubeconfig.display()
    );
    let output = Command::new("script").args(["-qec", &line, "/dev/null"]).stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success() && said.contains("/dev/pts/"), "no terminal: {said}");
    Ok(())
}

pub fn port_forward(cluster: &Cluster) -> Result<()> {
    let mut child = cluster
        .kubectl_command(&["--namespace", "demo", "port-forward", "deployment/hello", ":8080"])
        .stdout(Stdio::piped())
        .stdin(Stdio::null())
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("kubectl has no output")?).lines();
    let outcome = (|| {
        let said = lines.next().transpose()?.context("port-forward said nothing")?;
        let address = said.split(' ').nth(2).with_context(|| format!("port-forward said {said}"))?.to_owned();
        for _ in 0..3 {
            let mut stream = TcpStream::connect(&address)?;
            stream.write_all(b"GET / HTTP/1.1\r\nHost: hello\r\nConnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            ensure!(answer.contains("hello from hello-"), "the answer was {answer:?}");
        }
        Ok(())
    })();
    child.kill()?;
    child.wait()?;
    outcome
}
