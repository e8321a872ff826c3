//! The journal: each line is one record with its priority. Where stderr is not the journal, there
//! is no prefix.

use std::fs;

use crate::machine::tell;
use crate::unit::{Record, Unit};

/// bowout's own records, in order.
fn own(unit: &Unit) -> Vec<Record> {
    let pids: Vec<Record> = unit
        .journal()
        .into_iter()
        .filter(|record| record.message.contains("bowout: "))
        .collect();
    for record in &pids {
        assert!(
            record.message.starts_with("bowout: "),
            "a prefix is left, or two lines are one record: {record:?}"
        );
    }
    pids
}

#[test]
fn every_line_is_a_record_with_its_priority() {
    let command = "ExecStart=@B --grace 300ms -v -- @P signals";
    let Some(unit) = Unit::new("priority", &format!("Type=exec\n{command}")) else {
        return;
    };
    unit.start();
    unit.says("ready ");
    let bowout = unit.main_pid();
    unit.kill("USR2");
    unit.says("12 ");
    unit.stop();
    unit.ended();
    let log = own(&unit);
    assert!(log.iter().all(|record| record.pid == bowout), "{log:?}");
    for (what, priority) in [
        ("started '", 7),
        ("forwarded SIGUSR2", 6),
        ("received SIGTERM", 6),
        ("grace period of 300ms is over: sent SIGKILL", 4),
        ("was killed by SIGKILL after", 4),
    ] {
        let found: Vec<&Record> = log
            .iter()
            .filter(|record| record.message.contains(what))
            .collect();
        assert_eq!(
            found
                .iter()
                .map(|record| record.priority)
                .collect::<Vec<_>>(),
            [priority],
            "{what}: {log:#?}"
        );
    }
    for record in &log {
        tell(&format!("<{}> {}", record.priority, record.message));
    }
}

#[test]
fn a_name_of_two_lines_is_one_record_of_an_error() {
    let Some(unit) = Unit::new(
        "two-lines",
        "Type=exec\nExecStart=@B -- \"/no/such\\nbowout: program\"",
    ) else {
        return;
    };
    // With Type=exec the unit has started once bowout runs. Its end is in the journal.
    unit.machine().systemctl(["start", &unit.name]);
    let end = unit.ended();
    let log = own(&unit);
    let [record] = &log[..] else {
        panic!("not one record: {log:#?}")
    };
    tell(&format!("<{}> {}", record.priority, record.message));
    assert_eq!(
        (record.priority, end.get("ExecMainStatus")),
        (3, "127"),
        "{end:?}"
    );
    assert!(
        record.message.contains("No such file or directory"),
        "{record:?}"
    );
}

/// JOURNAL_STREAM is set because of stdout; stderr is a file.
#[test]
fn in_a_file_there_is_no_prefix() {
    let command =
        "StandardOutput=journal\nStandardError=append:@D/log\nExecStart=@B -v -- @P exit 3";
    let Some(unit) = Unit::new("no-prefix", &format!("Type=exec\n{command}")) else {
        return;
    };
    unit.machine().systemctl(["start", &unit.name]);
    unit.ended();
    let log = fs::read_to_string(unit.file("log")).expect("a log");
    tell(&format!("{log:?}"));
    assert!(
        log.lines().all(|line| line.starts_with("bowout: ")) && log.contains("exited with 3"),
        "{log:?}"
    );
}
