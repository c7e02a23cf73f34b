//! CPU time and memory of processes, read from `/proc`.

use anyhow::Context as _;

/// User and system CPU seconds that `pids` have used so far, threads included.
pub(crate) fn cpu_seconds(pids: &[u32]) -> anyhow::Result<f64> {
    let ticks_per_second = rustix::param::clock_ticks_per_second() as f64;
    pids.iter().try_fold(0.0, |sum, pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid} is gone"))?;
        Ok(sum + ticks(&stat)? as f64 / ticks_per_second)
    })
}

/// The largest resident set that `pids` ever had, summed, in MiB.
pub(crate) fn peak_mib(pids: &[u32]) -> anyhow::Result<f64> {
    pids.iter().try_fold(0.0, |sum, pid| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid} is gone"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
        let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(sum + kib / 1024.0)
    })
}

/// utime and stime of a `/proc/<pid>/stat` line; the command may hold spaces and parentheses.
fn ticks(stat: &str) -> anyhow::Result<u64> {
    let (_, after) = stat.rsplit_once(')').context("a stat line without a command")?;
    let fields: Vec<&str> = after.split_whitespace().collect();
    let field = |index: usize| fields.get(index).context("a short stat line")?.parse::<u64>().context("no number");
    Ok(field(11)? + field(12)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_system_time_are_added() {
        assert_eq!(ticks("7 (a (b) c) S 1 7 7 0 -1 0 1 2 3 4 100 23 5 6 20").unwrap(), 123);
    }

    #[test]
    fn this_process_has_memory() {
        assert!(peak_mib(&[std::process::id()]).unwrap() > 0.1);
        assert!(cpu_seconds(&[std::process::id()]).unwrap() >= 0.0);
    }
}
