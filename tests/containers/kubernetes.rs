//! The manifests of packaging/kubernetes: their deadlines nest, and podman, in place of the
//! kubelet, runs them to their end.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::common::{skip, until};
use crate::engine::no_containers;
use crate::podman::{Podman, build_the_example};

const POD: &str = "bowout-example";
const CONTAINER: &str = "bowout-example-web";

fn manifest(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("packaging/kubernetes")
        .join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The text after `key: ` on its line.
fn value<'a>(manifest: &'a str, key: &str) -> &'a str {
    let mut lines = manifest.lines().map(str::trim_start);
    lines
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(": "))
        .unwrap_or_else(|| panic!("no {key}"))
}

/// The value of a variable of the container, which is on the line after its name.
fn variable<'a>(manifest: &'a str, name: &str) -> &'a str {
    let (_, rest) = manifest
        .split_once(&format!("- name: {name}\n"))
        .unwrap_or_else(|| panic!("no {name}"));
    value(rest, "value")
}

#[test]
fn the_deadlines_of_the_manifests_nest() {
    for name in ["pod.yaml", "deployment.yaml"] {
        let text = manifest(name);
        let duration = |name| humantime::parse_duration(variable(&text, name)).expect("a duration");
        let kubelet = Duration::from_secs(
            value(&text, "terminationGracePeriodSeconds")
                .parse()
                .expect("a number"),
        );
        let (grace, delay) = (duration("BOWOUT_GRACE"), duration("BOWOUT_STOP_DELAY"));
        // bowout waits for 2 s after SIGKILL.
        assert!(grace + Duration::from_secs(2) < kubelet, "{name}");
        assert!(
            delay * 2 < grace,
            "{name}: the command is left the most of it"
        );
        assert_eq!(
            variable(&text, "BOWOUT_TERMINATION_LOG"),
            value(&text, "terminationMessagePath"),
            "{name}"
        );
    }
}

/// A Pod of the manifest, with the local image and, as from the kubelet, an empty file for the
/// message.
struct Pod {
    podman: Podman,
}

impl Pod {
    fn play(edit: impl Fn(String) -> String, extra: &str) -> Self {
        let podman = Podman::new();
        let image = build_the_example(&podman);
        let message = podman.dir.write("message", "", 0o666);
        let mounted = format!(
            "image: {image}\n{extra}      volumeMounts:\n        - name: message\n          mountPath: /dev/termination-log"
        );
        let volume = format!(
            "  volumes:\n    - name: message\n      hostPath:\n        path: {}\n        type: File\n",
            message.display()
        );
        let text = manifest("pod.yaml").replace("image: bowout-example:latest", &mounted);
        // podman would publish the ports, and there is no network for that.
        let text =
            edit(text.replace("      ports:\n        - containerPort: 8080\n", "")) + &volume;
        let file = podman.dir.write("pod.yaml", &text, 0o600);
        podman.run(&[
            "play",
            "kube",
            "--network",
            "none",
            file.to_str().expect("text"),
        ]);
        Self { podman }
    }

    fn log(&self) -> String {
        let output =
            crate::common::leftovers::output(&mut self.podman.command(&["logs", CONTAINER]));
        crate::engine::both(&output)
    }

    fn inspect(&self, what: &str) -> String {
        self.podman
            .run(&["inspect", "--format", &format!("{{{{{what}}}}}"), CONTAINER])
            .trim()
            .to_owned()
    }

    /// Stops the Pod with the kubelet's deadline, which older versions of podman do not read from
    /// the manifest. Returns the exit code.
    fn stop(&self) -> String {
        let text = manifest("pod.yaml");
        self.podman.run(&[
            "pod",
            "stop",
            "--time",
            value(&text, "terminationGracePeriodSeconds"),
            POD,
        ]);
        self.inspect(".State.ExitCode")
    }

    fn message(&self) -> String {
        fs::read_to_string(self.podman.dir.file("message")).expect("there")
    }
}

#[test]
fn a_pod_stops_after_its_delay_and_says_why() {
    if skip(no_containers(&["podman", "runc"])) {
        return;
    }
    let pod = Pod::play(|text| text, "");
    until("the server answers", || {
        let fetch = [
            "exec",
            CONTAINER,
            "/bin/busybox",
            "wget",
            "-q",
            "-O",
            "-",
            "http://127.0.0.1:8080/",
        ];
        let output = crate::common::leftovers::output(&mut pod.podman.command(&fetch));
        output.status.success().then_some(())
    });
    assert_eq!(pod.stop(), "143");
    let log = pod.log();
    assert!(
        log.contains(
            "received SIGTERM from outside: waiting for 5s before it is sent, SIGKILL in 25s"
        ),
        "{log}"
    );
    assert!(log.contains("stop delay is over: sent SIGTERM"), "{log}");
    let message = pod.message();
    let after = message
        .strip_prefix("killed by SIGTERM, ")
        .and_then(|rest| rest.split_once("s after SIGTERM from outside;"));
    let after: f64 = after
        .unwrap_or_else(|| panic!("{message}"))
        .0
        .parse()
        .expect("seconds");
    // Not before the delay is over, and long before the kubelet's deadline.
    assert!((5.0..25.0).contains(&after), "{message}");
    println!("the termination message: {}", message.trim_end());
}

/// podman makes one Pod of a Deployment.
#[test]
fn a_pod_of_the_deployment_stops_after_its_delay() {
    if skip(no_containers(&["podman", "runc"])) {
        return;
    }
    let podman = Podman::new();
    let image = build_the_example(&podman);
    let text = manifest("deployment.yaml")
        .replace("image: bowout-example:latest", &format!("image: {image}"))
        .replace("replicas: 2", "replicas: 1")
        // podman would publish the ports, and there is no network for that.
        .replace("          ports:\n            - containerPort: 8080\n", "");
    let file = podman.dir.write("deployment.yaml", &text, 0o600);
    let path = file.to_str().expect("text");
    podman.run(&["play", "kube", "--network", "none", path]);
    let all = podman.run(&["ps", "--all", "--format", "{{.Names}}"]);
    let name = all.lines().find(|name| name.ends_with("-web"));
    let name = name.unwrap_or_else(|| panic!("no container: {all}"));
    until("the server answers", || {
        let fetch = ["exec", name, "/bin/busybox", "wget", "-q", "-O", "-"];
        let mut command = podman.command(&fetch);
        let output = crate::common::leftovers::output(command.arg("http://127.0.0.1:8080/"));
        output.status.success().then_some(())
    });
    let seconds = value(&text, "terminationGracePeriodSeconds");
    podman.run(&["stop", "--time", seconds, name]);
    let code = podman.run(&["inspect", "--format", "{{.State.ExitCode}}", name]);
    assert_eq!(code.trim(), "143");
    let log = crate::engine::both(&crate::common::leftovers::output(
        &mut podman.command(&["logs", name]),
    ));
    assert!(
        log.contains("waiting for 5s before it is sent, SIGKILL in 25s")
            && log.contains("stop delay is over: sent SIGTERM"),
        "{log}"
    );
}

#[test]
fn a_pod_that_does_not_stop_is_killed_by_bowout_within_the_kubelets_deadline() {
    if skip(no_containers(&["podman", "runc"])) {
        return;
    }
    let shorter = |text: String| {
        text.replace("value: 25s", "value: 2s")
            .replace("value: 5s", "value: 200ms")
    };
    let command = r#"      args: ["/bin/busybox", "sh", "-c", "trap '' TERM; sleep 1000 & echo ready; wait"]"#;
    let pod = Pod::play(shorter, &format!("{command}\n"));
    until("the command is ready", || {
        pod.log().contains("ready").then_some(())
    });
    assert_eq!(pod.stop(), "137");
    let message = pod.message();
    let why = "killed by SIGKILL: 2s grace period expired after SIGTERM from outside; killed 1 descendant, too ('sleep' pid ";
    assert!(message.starts_with(why), "{message}");
    assert!(
        message.contains("); main process '/bin/busybox' (pid "),
        "{message}"
    );
    println!("the termination message: {}", message.trim_end());
}
