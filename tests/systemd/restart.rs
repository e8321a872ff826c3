//! No connection is lost over a restart: systemd keeps the socket, and the old process finishes its
//! requests within its grace period.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::common::{until, watchdog};
use crate::machine::tell;
use crate::unit::Unit;

const CLIENTS: u32 = 32;
/// The time between two requests of a client: 320 requests a second in all.
const EVERY: Duration = Duration::from_millis(100);
/// The number of requests that each process answers before the next restart.
const ANSWERS: usize = 300;
/// The most requests, so that the load ends on a slow machine as well.
const MOST: usize = 60_000;

#[derive(Default)]
struct Load {
    stop: AtomicBool,
    asked: AtomicUsize,
    answered: AtomicUsize,
    failures: Mutex<Vec<String>>,
    /// The servers that have answered, in this order, and the number of their answers.
    servers: Mutex<Vec<(String, usize)>>,
    longest: Mutex<Duration>,
}

fn request(port: u16, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(watchdog()))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: test\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Runs one client. It sends a request at each of its moments, or, if the answer before is late,
/// after that answer.
fn client(port: u16, number: u32, network: &File, load: &Load, start: Instant) {
    // SAFETY: no pointers; the call changes the namespace of this thread alone.
    let joined = unsafe { libc::setns(network.as_raw_fd(), libc::CLONE_NEWNET) };
    assert_eq!(joined, 0, "setns: {}", std::io::Error::last_os_error());
    let offset = EVERY * number / CLIENTS;
    for turn in 0_u32.. {
        let left = (start + offset + EVERY * turn).saturating_duration_since(Instant::now());
        if !left.is_zero() {
            // SAFETY: no descriptors.
            unsafe { libc::poll(std::ptr::null_mut(), 0, left.as_millis() as i32) };
        }
        if load.stop.load(Ordering::SeqCst) || load.asked.load(Ordering::SeqCst) >= MOST {
            return;
        }
        load.asked.fetch_add(1, Ordering::SeqCst);
        let path = if turn % 20 == 7 { "/slow" } else { "/" };
        let begun = Instant::now();
        let answer = request(port, path);
        let took = begun.elapsed();
        let mut longest = load.longest.lock().expect("no panic holds it");
        *longest = took.max(*longest);
        drop(longest);
        match answer
            .as_ref()
            .ok()
            .and_then(|text| text.split("answered by ").nth(1))
        {
            Some(pid)
                if answer
                    .as_ref()
                    .is_ok_and(|text| text.starts_with("HTTP/1.0 200 ")) =>
            {
                let pid = pid.trim().to_owned();
                let mut servers = load.servers.lock().expect("no panic holds it");
                match servers.iter_mut().find(|(known, _)| *known == pid) {
                    Some((_, count)) => *count += 1,
                    None => servers.push((pid, 1)),
                }
                drop(servers);
                load.answered.fetch_add(1, Ordering::SeqCst);
            }
            _ => load
                .failures
                .lock()
                .expect("no panic holds it")
                .push(format!("{path}: {answer:?}")),
        }
    }
}

#[test]
fn no_connection_is_lost_over_five_restarts_under_load() {
    no_connection_is_lost("http", 8081, "Type=exec", "--grace 20s", (5, "restart"));
}

/// bowout, the parent of both instances, is the unit's main process all the time.
#[test]
fn no_connection_is_lost_over_ten_reloads_that_replace_the_command() {
    let options = "--grace 20s --replace-on HUP --ready notify";
    no_connection_is_lost(
        "replace",
        8082,
        "Type=notify-reload",
        options,
        (10, "reload"),
    );
}

/// The server listens at an address of the container's own loopback. The test replaces it `times`
/// times, with the verb `how` of systemctl(1).
fn no_connection_is_lost(
    name: &str,
    port: u16,
    kind: &str,
    options: &str,
    (times, how): (usize, &str),
) {
    let service = format!(
        "[Service]\nKillMode=mixed\n{kind}\nLimitNPROC=infinity\nTasksMax=infinity\n\
         ExecStart=@B {options} -- /usr/bin/python3 /opt/test/server.py\n[Unit]\nStartLimitIntervalSec=0"
    );
    let socket = format!("[Socket]\nListenStream=127.0.0.1:{port}");
    let Some(unit) = Unit::with(name, &service, &[("socket", &socket)]) else {
        return;
    };
    let socket = format!("{}.socket", unit.name);
    assert_eq!(unit.machine().systemctl(["start", &socket]), "");
    let load = Arc::new(Load::default());
    let start = Instant::now();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let (load, network) = (Arc::clone(&load), unit.machine().network());
            std::thread::spawn(move || client(port, number, &network, &load, start))
        })
        .collect();
    // The load ends with this function, even if it panics.
    let ended = End(Arc::clone(&load));
    // Each restart happens under load, after the current process has given 300 answers.
    let answers = |servers: usize| {
        until(
            &format!("server {servers} has answered {ANSWERS} requests"),
            || {
                let all = load.servers.lock().expect("no panic holds it");
                (all.len() == servers && all.last()?.1 >= ANSWERS).then_some(())
            },
        );
    };
    for server in 1..=times {
        answers(server);
        unit.systemctl(&[how]);
    }
    answers(times + 1);
    let asked = load.asked.load(Ordering::SeqCst);
    let rate = asked * 1000 / start.elapsed().as_millis() as usize;
    drop(ended);
    for client in clients {
        client.join().expect("a client");
    }
    let failures = load.failures.lock().expect("no panic holds it").clone();
    let servers = load.servers.lock().expect("no panic holds it").clone();
    let (all, answered) = (
        load.asked.load(Ordering::SeqCst),
        load.answered.load(Ordering::SeqCst),
    );
    let longest = *load.longest.lock().expect("no panic holds it");
    tell(&format!(
        "{all} requests, {rate} a second, {answered} answered, {} failed, {times} times {how}, answered by {servers:?}, longest {longest:?}",
        failures.len()
    ));
    assert_eq!((failures.as_slice(), answered), (&[][..], all));
    assert_eq!(
        servers
            .iter()
            .map(|(pid, _)| pid)
            .collect::<BTreeSet<_>>()
            .len(),
        times + 1
    );
    assert!(rate >= 200, "{rate} requests a second are no load");
    // Each of the old processes has exited by itself.
    let drained = unit
        .out()
        .iter()
        .filter(|line| line.starts_with("drained "))
        .count();
    assert_eq!(drained, times, "{:?}", unit.out());
    assert_eq!(unit.machine().systemctl(["stop", &socket, &unit.name]), "");
    assert_eq!(unit.ended().get("Result"), "success");
}

struct End(Arc<Load>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::SeqCst);
    }
}
