//! The table of attempted intrusions, in parts by what an intruder starts from.
//! Each row names an attack and the refusal that is expected of it; the test
//! beside its part makes the attempt.

use crate::{
    intrusions_certificates, intrusions_enrolment, intrusions_hub, intrusions_keys,
    intrusions_transport,
};

/// An issue asked for at least so many.
const ROWS_MIN: usize = 40;

#[test]
fn the_table_of_intrusions_is_as_long_as_was_promised() {
    let parts = [
        ("by certificate", intrusions_certificates::ROWS),
        ("by token and by request", intrusions_enrolment::ROWS),
        ("into a member, as its hub", intrusions_hub::ROWS),
        ("with what was right once", intrusions_keys::ROWS),
        ("below the protocol", intrusions_transport::ROWS),
    ];
    for (part, rows) in parts {
        println!("{part}: {rows}");
        assert!(rows > 0, "{part}");
    }
    let rows: usize = parts.iter().map(|(_, rows)| rows).sum();
    assert!(rows >= ROWS_MIN, "{rows} rows, and {ROWS_MIN} were promised");
}
