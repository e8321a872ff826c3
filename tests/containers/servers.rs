//! Real servers under load, stopped: requests in flight complete, and no acknowledged write is
//! lost.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::json;

use crate::common::{Dir, skip, until, watchdog};
use crate::engine::{find, no_containers, put_linked};
use crate::runc::{Bundle, Container};

/// Starts bowout with these options and a program of this machine, with the libraries that it is
/// linked with. `shared` is /shared inside.
fn serve(shared: &Path, options: &[&str], program: &str, words: &[&str]) -> Container {
    let program = find(program).expect("installed");
    let line = [
        &["/bowout"],
        options,
        &["--", program.to_str().expect("text")],
        words,
    ]
    .concat();
    let bundle = Bundle::new(&line).with(|config| {
        let mount = json!({ "destination": "/shared", "type": "bind", "source": shared, "options": ["bind", "rw"] });
        config["mounts"].as_array_mut().expect("a list").push(mount);
    });
    put_linked(&bundle.root(), &program);
    // nginx looks up the user of its workers.
    fs::create_dir_all(bundle.root().join("etc")).expect("a directory");
    fs::write(bundle.root().join("etc/passwd"), "root:x:0:0::/:/bin/sh\n").expect("written");
    fs::write(bundle.root().join("etc/group"), "root:x:0:\n").expect("written");
    bundle.start()
}

/// Connects to a server's socket, once it listens.
fn connect(socket: &Path) -> UnixStream {
    let stream = until("the server listens", || UnixStream::connect(socket).ok());
    stream
        .set_read_timeout(Some(watchdog()))
        .expect("a time-out");
    stream
}

/// A slow response takes three seconds: the rate limit applies after its first 64 kB.
const NGINX: &str = "
daemon off;
user root root;
worker_processes 2;
pid /shared/nginx.pid;
error_log stderr;
events { worker_connections 256; }
http {
    access_log off;
    client_body_temp_path /shared/body;
    proxy_temp_path /shared/proxy;
    fastcgi_temp_path /shared/fastcgi;
    uwsgi_temp_path /shared/uwsgi;
    scgi_temp_path /shared/scgi;
    server {
        listen unix:/shared/socket;
        root /shared/www;
        location /slow { limit_rate 320k; limit_rate_after 64k; }
    }
}
";
const SLOW: usize = 1_000_000;
const QUICK: usize = 1000;

/// The part of one response that the client received.
#[derive(Debug, PartialEq, Eq)]
enum Response {
    /// The server accepted no more connections, or closed this one before its response began.
    None,
    Cut(usize),
    Whole,
}

/// Sends a request, and counts in `begun` when the response has begun.
fn get(socket: &Path, file: &str, size: usize, begun: &AtomicUsize) -> Response {
    let Ok(mut stream) = UnixStream::connect(socket) else {
        return Response::None;
    };
    stream
        .set_read_timeout(Some(watchdog()))
        .expect("a time-out");
    if write!(stream, "GET /{file} HTTP/1.0\r\n\r\n").is_err() {
        return Response::None;
    }
    let mut stream = BufReader::new(stream);
    let mut status = String::new();
    if !stream.read_line(&mut status).is_ok_and(|length| length > 0) {
        return Response::None;
    }
    assert!(status.contains(" 200 "), "{status}");
    begun.fetch_add(1, Ordering::Relaxed);
    let mut rest = Vec::new();
    let ended = stream.read_to_end(&mut rest);
    let headers = rest
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .map_or(rest.len(), |at| at + 4);
    let body = rest.len() - headers;
    if ended.is_ok() && body == size {
        Response::Whole
    } else {
        Response::Cut(body)
    }
}

#[test]
fn nginx_completes_the_requests_in_flight() {
    if skip(no_containers(&["runc", "nginx"])) {
        return;
    }
    let shared = Dir::new();
    fs::create_dir(shared.file("www")).expect("a directory");
    shared.write("www/slow", "x".repeat(SLOW), 0o644);
    shared.write("www/quick", "x".repeat(QUICK), 0o644);
    let config = shared.write("nginx.conf", NGINX, 0o644);
    assert!(config.exists());
    let options = [
        "--stop-signal",
        "QUIT",
        "--grace",
        "60s",
        "--report",
        "/report",
    ];
    let mut container = serve(&shared.0, &options, "nginx", &["-c", "/shared/nginx.conf"]);
    let socket = shared.file("socket");
    drop(connect(&socket));
    let (begun, quick) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    // Two clients send requests until they get no response.
    let busy: Vec<_> = (0..2)
        .map(|_| {
            let (socket, quick) = (socket.clone(), Arc::clone(&quick));
            thread::spawn(move || {
                // The number is bounded, should the server go on for ever.
                let mut all = (0..1_000_000).map(|_| get(&socket, "quick", QUICK, &quick));
                all.find(|response| *response != Response::Whole)
            })
        })
        .collect();
    until("there is load", || {
        (quick.load(Ordering::Relaxed) >= 1000).then_some(())
    });
    let slow: Vec<_> = (0..50)
        .map(|_| {
            let (socket, begun) = (socket.clone(), Arc::clone(&begun));
            thread::spawn(move || get(&socket, "slow", SLOW, &begun))
        })
        .collect();
    until("all slow responses have begun", || {
        (begun.load(Ordering::Relaxed) == 50).then_some(())
    });
    container.place.kill("TERM");
    // The stop begins while the slow responses are under way.
    container.log("sent SIGQUIT to");
    assert!(
        slow.iter().all(|client| !client.is_finished()),
        "a response had ended before the stop"
    );
    for client in slow {
        assert_eq!(client.join().expect("no panic"), Response::Whole);
    }
    for client in busy {
        assert_eq!(client.join().expect("no panic"), Some(Response::None));
    }
    assert_eq!(container.end(), 0);
    let report = container.place.report();
    assert_eq!(report["descendants"]["killed"], 0, "{report}");
    let answered = quick.load(Ordering::Relaxed);
    println!(
        "nginx: 50 of 50 slow and {answered} quick responses whole, the stop took {} ms",
        report["stop"]["took_ms"]
    );
}

/// One client of redis. `ask` returns the reply to a command, or None when the server has exited.
struct Redis(BufReader<UnixStream>);

impl Redis {
    fn new(socket: &Path) -> Self {
        let mut redis = Self(BufReader::new(connect(socket)));
        // While redis loads its data, its reply is that it does so.
        until("redis answers", || {
            redis.ask("PING").filter(|reply| reply == "+PONG")
        });
        redis
    }

    fn ask(&mut self, command: &str) -> Option<String> {
        write!(self.0.get_mut(), "{command}\r\n").ok()?;
        let mut line = String::new();
        self.0
            .read_line(&mut line)
            .ok()
            .filter(|length| *length > 0)?;
        if line.starts_with('$') && !line.starts_with("$-1") {
            line.clear();
            self.0.read_line(&mut line).ok()?;
        }
        Some(line.trim_end().to_owned())
    }
}

fn redis(shared: &Path) -> (Container, PathBuf) {
    let options = ["--grace", "60s", "--report", "/report"];
    let words = [
        "--port",
        "0",
        "--unixsocket",
        "/shared/socket",
        "--dir",
        "/shared",
        "--appendonly",
        "no",
    ];
    // Only the orderly stop saves the data.
    let save = [
        "--save",
        "3600 1",
        "--daemonize",
        "no",
        "--maxmemory-policy",
        "noeviction",
    ];
    (
        serve(
            shared,
            &options,
            "redis-server",
            &[&words[..], &save].concat(),
        ),
        shared.join("socket"),
    )
}

#[test]
fn redis_loses_no_acknowledged_write() {
    if skip(no_containers(&["runc", "redis-server"])) {
        return;
    }
    let shared = Dir::new();
    let (mut container, socket) = redis(&shared.0);
    drop(Redis::new(&socket));
    let writes = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..4)
        .map(|client| {
            let (socket, writes) = (socket.clone(), Arc::clone(&writes));
            thread::spawn(move || {
                let mut redis = Redis::new(&socket);
                // Counts up until there is no reply. The result is the last acknowledged number.
                let acknowledged = (1..10_000_000_u64).map_while(|number| {
                    let reply = redis.ask(&format!("INCR counter:{client}"))?;
                    // While it shuts down, redis may refuse the command.
                    let count = reply.strip_prefix(':')?.parse::<u64>().expect("a number");
                    assert_eq!(count, number);
                    writes.fetch_add(1, Ordering::Relaxed);
                    Some(count)
                });
                acknowledged.last().unwrap_or(0)
            })
        })
        .collect();
    until("there is load", || {
        (writes.load(Ordering::Relaxed) >= 10_000).then_some(())
    });
    assert!(
        !shared.file("dump.rdb").exists(),
        "it has saved before the stop"
    );
    container.place.kill("TERM");
    assert_eq!(container.end(), 0);
    let acknowledged: Vec<u64> = clients
        .into_iter()
        .map(|client| client.join().expect("no panic"))
        .collect();
    let took = container.place.report()["stop"]["took_ms"].clone();
    let (mut container, socket) = redis(&shared.0);
    let mut client = Redis::new(&socket);
    for (key, acknowledged) in acknowledged.iter().enumerate() {
        let kept: u64 = client
            .ask(&format!("GET counter:{key}"))
            .expect("an answer")
            .parse()
            .expect("a number");
        // The server may have made the last write without its reply having arrived.
        assert!(
            (*acknowledged..=acknowledged + 1).contains(&kept),
            "counter:{key}: {kept}, acknowledged {acknowledged}"
        );
    }
    println!(
        "redis: {} acknowledged writes, none lost, the stop took {took} ms",
        acknowledged.iter().sum::<u64>()
    );
    container.place.kill("TERM");
    assert_eq!(container.end(), 0);
}
