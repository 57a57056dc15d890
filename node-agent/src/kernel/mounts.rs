//! The mount table. Pure.
//!
//! It exists to be tested on tables of other machines. It must not read files.

use std::path::PathBuf;

/// Where cgroup v2 is mounted, by a table in the format of /proc/mounts. The last one wins, as it covers the others.
pub fn cgroup_v2(table: &str) -> Option<PathBuf> {
    let mut mounts = table.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (_, at, kind) = (words.next()?, words.next()?, words.next()?);
        // The kernel writes a space in a path as \040.
        (kind == "cgroup2").then(|| PathBuf::from(at.replace("\\040", " ")))
    });
    mounts.next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unified_tree_is_found_pure_or_beside_v1() {
        let pure = "proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n";
        assert_eq!(cgroup_v2(pure), Some("/sys/fs/cgroup".into()));
        let hybrid =
            "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(cgroup_v2(hybrid), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(cgroup_v2("cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n"), None);
    }
}
