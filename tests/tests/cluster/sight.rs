//! Sight: flows live from a node while pods talk, what would become of a connection, and the metrics of it.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use penstock_tests::cluster::{Cluster, PATIENCE};
use penstock_tests::eventually::eventually;

use super::Scenario;

pub const SCENARIOS: &[Scenario] = &[
    ("observe_shows_who_talks_to_whom_by_name", observed),
    ("explain_knows_a_working_an_empty_and_no_service", explained),
    ("metrics_are_scraped_under_the_names_that_dashboards_know", scraped),
];

/// A Service that selects nobody.
const EMPTY: &str = "
apiVersion: v1
kind: Service
metadata: { name: empty, namespace: demo }
spec: { selector: { app: nobody }, ports: [{ port: 80 }] }
";

fn agent() -> Result<String> {
    let program = std::env::current_exe()?;
    let folder = program.ancestors().nth(2).context("no target folder")?;
    Ok(folder.join("node-agent").display().to_string())
}

/// A pod of the demo and the node it is on.
fn client(cluster: &Cluster) -> Result<(String, String)> {
    let path = "jsonpath={range .items[*]}{.metadata.name} {.spec.nodeName}{\"\\n\"}{end}";
    let pods = cluster.kubectl(&["-n", "demo", "get", "pods", "-l", "app=hello", "-o", path])?;
    let (pod, node) = pods.lines().next().and_then(|line| line.split_once(' ')).context("no pods")?;
    Ok((pod.to_owned(), node.to_owned()))
}

fn observed(cluster: &Cluster) -> Result<()> {
    let (pod, node) = client(cluster)?;
    let wanted = format!("demo/{pod}");
    let words = [
        &agent()?,
        "observe",
        "--json",
        "--state-dir",
        &cluster.agent_state_dir(&node),
        "--from",
        &wanted,
        "--service",
        "demo/hello",
        "--count",
        "1",
        "--seconds",
        "60",
    ];
    let mut observer =
        cluster.in_node_command(&node, &words)?.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut said = String::new();
    // It says when it is told.
    BufReader::new(observer.stderr.take().context("no standard error")?).read_line(&mut said)?;
    let asked = cluster.kubectl(&["-n", "demo", "exec", &pod, "--", "demo", "fetch", "http://hello/", "5"]);
    let output = observer.wait_with_output()?;
    asked?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let seen: serde_json::Value = serde_json::from_str(&text).with_context(|| format!("{said}{text}"))?;
    ensure!(seen["source"]["pod"] == wanted.as_str(), "{seen}");
    ensure!(seen["verdict"] == "translated" && seen["point"] == "connect", "{seen}");
    ensure!(seen["new_destination"]["address"].is_string(), "{seen}");
    Ok(())
}

fn explained(cluster: &Cluster) -> Result<()> {
    let (pod, node) = client(cluster)?;
    let (agent, from, records) = (agent()?, format!("demo/{pod}"), cluster.agent_state_dir(&node));
    let explain = |to: &str| -> Result<serde_json::Value> {
        let said =
            cluster.in_node(&node, &[&agent, "explain", "--json", "--state-dir", &records, &from, to])?;
        serde_json::from_str(&said).context(said)
    };
    let works = explain("demo/hello:80")?;
    ensure!(works["verdict"] == "translated", "{works}");
    ensure!(works["backends"].as_array().is_some_and(|it| !it.is_empty()), "{works}");
    let by_name = explain("hello.demo.svc.cluster.local:80")?;
    ensure!(by_name["backends"] == works["backends"], "{by_name}");

    cluster.kubectl_with(&["apply", "-f", "-"], EMPTY)?;
    let empty = eventually(PATIENCE, || explain("demo/empty:80"));
    cluster.kubectl(&["-n", "demo", "delete", "service", "empty"])?;
    let empty = empty?;
    ensure!(empty["verdict"] == "refused", "{empty}");
    ensure!(empty["suggestions"][0].as_str().is_some_and(|it| it.contains("0 ready endpoints")), "{empty}");

    let Err(none) = explain("demo/nonesuch:80") else {
        anyhow::bail!("a Service that is none was explained")
    };
    ensure!(format!("{none:#}").contains("no Service demo/nonesuch"), "{none:#}");
    Ok(())
}

fn scraped(cluster: &Cluster) -> Result<()> {
    let (_, node) = client(cluster)?;
    let text = cluster.in_node(&node, &["curl", "-sSf", "-m", "10", "http://127.0.0.1:10249/metrics"])?;
    for name in [
        "kubeproxy_sync_proxy_rules_duration_seconds_count",
        "kubeproxy_network_programming_duration_seconds_count",
        "penstock_dataplane_events_total{event=\"connect_translated\"}",
        "penstock_dataplane_drops_total{reason=\"no_backend\"}",
        "penstock_service_traffic_total{service=\"demo/hello:http\",kind=\"connects\"}",
        "penstock_dataplane_map_entries{map=\"vips_v2\"}",
    ] {
        ensure!(text.lines().any(|line| line.starts_with(name)), "{name} is not in\n{text}");
    }
    Ok(())
}
