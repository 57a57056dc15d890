//! The few bpf(2) commands that aya has no call for: links made, found again under their pins, and given another
//! program in place. Must not know what the programs do.

pub mod entries;

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const MAP_CREATE: libc::c_int = 0;
const MAP_LOOKUP_ELEM: libc::c_int = 1;
const MAP_DELETE_ELEM: libc::c_int = 3;
const MAP_GET_FD_BY_ID: libc::c_int = 14;
const MAP_LOOKUP_BATCH: libc::c_int = 24;
const MAP_UPDATE_BATCH: libc::c_int = 26;
const OBJ_PIN: libc::c_int = 6;
const OBJ_GET: libc::c_int = 7;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const LINK_CREATE: libc::c_int = 28;
const LINK_UPDATE: libc::c_int = 29;
const ITER_CREATE: libc::c_int = 33;
const LINK_DETACH: libc::c_int = 34;

/// `f_type` of a bpf file system.
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// `enum bpf_attach_type` of include/uapi/linux/bpf.h, as far as it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum AttachType {
    Bind4 = 8,
    Bind6 = 9,
    Connect4 = 10,
    Connect6 = 11,
    Sendmsg4 = 14,
    Sendmsg6 = 15,
    Recvmsg4 = 19,
    Recvmsg6 = 20,
    Getpeername4 = 29,
    Getpeername6 = 30,
    SockRelease = 34,
    Xdp = 37,
    TcxIngress = 46,
    TcxEgress = 47,
}

/// What a link is attached to.
#[derive(Debug, Clone, Copy)]
pub enum Target<'a> {
    /// A directory of the cgroup v2 tree.
    Cgroup(BorrowedFd<'a>),
    /// A network interface of this namespace.
    Interface(u32),
}

/// What the kernel says of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkTarget {
    /// The id of the cgroup, which is its directory's inode number; zero when the cgroup is gone.
    Cgroup(u64),
    /// The interface; zero when it is gone.
    Interface(u32),
    /// Another kind of link.
    Other,
}

const LINK_TYPE_CGROUP: u32 = 3;
const LINK_TYPE_XDP: u32 = 6;
const LINK_TYPE_TCX: u32 = 11;

/// `union bpf_attr`, zeroed and filled by offset: each command has its own layout.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Attr([u8; 128]);

impl Attr {
    fn new() -> Self {
        Self([0; 128])
    }

    fn u32(mut self, offset: usize, value: u32) -> Self {
        self.0[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
        self
    }

    fn u64(mut self, offset: usize, value: u64) -> Self {
        self.0[offset..offset + 8].copy_from_slice(&value.to_ne_bytes());
        self
    }

    fn fd(self, offset: usize, fd: impl AsFd) -> Self {
        // A descriptor is never negative while it is borrowed.
        self.u32(offset, fd.as_fd().as_raw_fd() as u32)
    }
}

fn bpf(command: libc::c_int, attr: &Attr) -> io::Result<libc::c_long> {
    // SAFETY: the attribute is fully initialised and outlives the call; memory it points to is owned by the callers.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, attr as *const Attr, size_of::<Attr>()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

/// A command that answers in the attribute itself.
fn bpf_answering(command: libc::c_int, attr: &mut Attr) -> io::Result<libc::c_long> {
    // SAFETY: as in `bpf`; the kernel writes only within the size given.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, attr as *mut Attr, size_of::<Attr>()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

/// Reads a field of an attribute.
fn word(attr: &Attr, at: usize) -> u32 {
    u32::from_ne_bytes([attr.0[at], attr.0[at + 1], attr.0[at + 2], attr.0[at + 3]])
}

fn owned(fd: libc::c_long) -> OwnedFd {
    // SAFETY: the kernel just gave this descriptor to us alone.
    unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}

/// Attaches a program by a link; the program is attached as long as the link is open or pinned.
pub fn create_link(
    program: BorrowedFd<'_>,
    target: Target<'_>,
    attach: AttachType,
    flags: u32,
) -> io::Result<OwnedFd> {
    let target = match target {
        Target::Cgroup(fd) => fd.as_raw_fd() as u32,
        Target::Interface(ifindex) => ifindex,
    };
    // struct { prog_fd, target_fd or target_ifindex, attach_type, flags } link_create. A link to a cgroup takes no flags,
    // since it is one among many by itself.
    let attr = Attr::new().fd(0, program).u32(4, target).u32(8, attach as u32).u32(12, flags);
    bpf(LINK_CREATE, &attr).map(owned)
}

/// Whether the kernel has links at interfaces for such a program (tcx, Linux 6.6).
pub fn has_tcx(program: BorrowedFd<'_>) -> bool {
    // It says that there is no such interface, or that it knows no such place.
    const NOBODYS: u32 = i32::MAX as u32;
    match create_link(program, Target::Interface(NOBODYS), AttachType::TcxIngress, 0) {
        Err(error) => error.raw_os_error() != Some(libc::EINVAL),
        Ok(_) => true,
    }
}

/// Puts a program in the place of the one a link has; no packet sees neither or both.
pub fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    bpf(LINK_UPDATE, &Attr::new().fd(0, link).fd(4, program)).map(drop)
}

/// Has a program run on every entry of a map, as what it tells is read.
pub fn iterate(program: BorrowedFd<'_>, map: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    const TRACE_ITER: u32 = 28;
    // union bpf_iter_link_info, whose part for maps is the map.
    let info = map.as_raw_fd();
    // struct { prog_fd, target_fd, attach_type, flags: u32; iter_info: u64; iter_info_len: u32 } link_create.
    let attr = Attr::new().fd(0, program).u32(8, TRACE_ITER).u64(16, &raw const info as u64);
    let link = bpf(LINK_CREATE, &attr.u32(24, size_of_val(&info) as u32)).map(owned)?;
    bpf(ITER_CREATE, &Attr::new().fd(0, &link)).map(owned)
}

/// Reads from a file. None are left after zero bytes.
pub fn read(file: BorrowedFd<'_>, to: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the buffer lives through the call and its length is given.
    let read = unsafe { libc::read(file.as_raw_fd(), to.as_mut_ptr().cast(), to.len()) };
    usize::try_from(read).map_err(|_| io::Error::last_os_error())
}

/// Takes a link's program off its place at once. A link that only loses its pin is taken off a little later, and the
/// place takes no other meanwhile.
pub fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
    bpf(LINK_DETACH, &Attr::new().fd(0, link)).map(drop)
}

/// What a link is attached to.
pub fn link_target(link: BorrowedFd<'_>) -> io::Result<LinkTarget> {
    // struct bpf_link_info: type, id, prog_id, then at 16 the part of the type.
    let mut info = Attr::new();
    let attr = Attr::new().fd(0, link).u32(4, size_of::<Attr>() as u32).u64(8, &raw mut info as u64);
    bpf(OBJ_GET_INFO_BY_FD, &attr)?;
    // SAFETY: `info` is plain bytes the kernel wrote through the address above; the read must not be folded away.
    let info = unsafe { (&raw const info).read_volatile() };
    Ok(match word(&info, 0) {
        LINK_TYPE_CGROUP => LinkTarget::Cgroup(u64::from(word(&info, 16)) | u64::from(word(&info, 20)) << 32),
        LINK_TYPE_TCX | LINK_TYPE_XDP => LinkTarget::Interface(word(&info, 16)),
        _ => LinkTarget::Other,
    })
}

/// Makes an array map.
pub fn create_array(value_size: u32, entries: u32, flags: u32) -> io::Result<OwnedFd> {
    const TYPE_ARRAY: u32 = 2;
    create_map(TYPE_ARRAY, value_size, entries, flags)
}

/// Makes an array map that has its values once for each CPU.
pub fn create_percpu_array(value_size: u32, entries: u32) -> io::Result<OwnedFd> {
    const TYPE_PERCPU_ARRAY: u32 = 6;
    create_map(TYPE_PERCPU_ARRAY, value_size, entries, 0)
}

fn create_map(map_type: u32, value_size: u32, entries: u32, flags: u32) -> io::Result<OwnedFd> {
    const KEY_SIZE: u32 = 4;
    // struct { map_type, key_size, value_size, max_entries, map_flags }.
    let attr =
        Attr::new().u32(0, map_type).u32(4, KEY_SIZE).u32(8, value_size).u32(12, entries).u32(16, flags);
    bpf(MAP_CREATE, &attr).map(owned)
}

/// Makes a ring buffer.
pub fn create_ring(bytes: u32) -> io::Result<OwnedFd> {
    const TYPE_RINGBUF: u32 = 27;
    bpf(MAP_CREATE, &Attr::new().u32(0, TYPE_RINGBUF).u32(12, bytes)).map(owned)
}

/// Waits until something can be read, or until the time is over.
pub fn wait_readable(fd: BorrowedFd<'_>, at_most: std::time::Duration) -> io::Result<()> {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let timeout_ms = at_most.as_millis().min(i32::MAX as u128) as libc::c_int;
    // SAFETY: one structure, which lives through the call.
    if unsafe { libc::poll(&mut poll, 1, timeout_ms) } >= 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        error if error.kind() == io::ErrorKind::Interrupted => Ok(()),
        error => Err(error),
    }
}

/// Waits until no other process holds a file locked, and locks it until it is closed.
pub fn lock(file: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the call takes numbers.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The time as programs read it.
pub fn now_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure lives through the call, which cannot fail for this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Removes an entry of a map whose keys have the size of `K`.
pub fn delete_entry<K: aya::Pod>(map: BorrowedFd<'_>, key: &K) -> io::Result<()> {
    bpf(MAP_DELETE_ELEM, &Attr::new().fd(0, map).u64(8, key as *const K as u64)).map(drop)
}

/// What the kernel says of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapInfo {
    /// Its number in this kernel; never used twice.
    pub id: u32,
    /// `enum bpf_map_type`.
    pub kind: u32,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value; of one CPU's where each has its own.
    pub value_size: u32,
    /// How many entries there is room for.
    pub entries_max: u32,
}

/// What the kernel says of a map.
pub fn map_info(map: BorrowedFd<'_>) -> io::Result<MapInfo> {
    let mut info = Attr::new();
    let attr = Attr::new().fd(0, map).u32(4, size_of::<Attr>() as u32).u64(8, &raw mut info as u64);
    bpf(OBJ_GET_INFO_BY_FD, &attr)?;
    // SAFETY: `info` is plain bytes the kernel wrote through the address above; the read must not be folded away.
    let info = unsafe { (&raw const info).read_volatile() };
    // struct bpf_map_info: type, id, key_size, value_size, max_entries.
    Ok(MapInfo {
        kind: word(&info, 0),
        id: word(&info, 4),
        key_size: word(&info, 8),
        value_size: word(&info, 12),
        entries_max: word(&info, 16),
    })
}

/// The number of the map that an array of maps has at a place, if it has one.
pub fn lookup_inner_id(outer: BorrowedFd<'_>, key: u32) -> io::Result<Option<u32>> {
    let mut id = 0_u32;
    let attr = Attr::new().fd(0, outer).u64(8, &raw const key as u64).u64(16, &raw mut id as u64);
    match bpf(MAP_LOOKUP_ELEM, &attr) {
        // SAFETY: a plain integer the kernel wrote through the address above.
        Ok(_) => Ok(Some(unsafe { (&raw const id).read_volatile() })),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Opens a map by its number.
pub fn map_by_id(id: u32) -> io::Result<OwnedFd> {
    bpf(MAP_GET_FD_BY_ID, &Attr::new().u32(0, id)).map(owned)
}

/// Reads an array map of at most this many entries, whose values have the size of `T`.
pub fn read_array<T: aya::Pod + Default>(map: BorrowedFd<'_>, entries: u32) -> io::Result<Vec<T>> {
    let (mut keys, mut values) = (vec![0_u32; entries as usize], vec![T::default(); entries as usize]);
    let mut next = 0_u32;
    // struct { in_batch, out_batch, keys, values: u64; count, map_fd: u32; elem_flags, flags: u64 } batch.
    let mut attr = Attr::new()
        .u64(8, &raw mut next as u64)
        .u64(16, keys.as_mut_ptr() as u64)
        .u64(24, values.as_mut_ptr() as u64)
        .u32(32, entries)
        .fd(36, map);
    match bpf_answering(MAP_LOOKUP_BATCH, &mut attr) {
        // ENOENT says that there is nothing behind what was read.
        Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error),
        _ => {
            values.truncate(word(&attr, 32) as usize);
            Ok(values)
        }
    }
}

/// Sets many entries of a map in one call. The map's keys and values have the sizes of `K` and `V`. When it fails, some
/// are set.
pub fn update_entries<K: aya::Pod, V: aya::Pod>(
    map: BorrowedFd<'_>,
    keys: &[K],
    values: &[V],
) -> io::Result<()> {
    assert_eq!(keys.len(), values.len(), "a value for each key");
    let attr = Attr::new().u64(16, keys.as_ptr() as u64).u64(24, values.as_ptr() as u64);
    bpf(MAP_UPDATE_BATCH, &attr.u32(32, keys.len() as u32).fd(36, map)).map(drop)
}

/// Fills an array map from its first entry on. The map's values have the size of `T`.
pub fn fill_array<T: aya::Pod>(map: BorrowedFd<'_>, values: &[T]) -> io::Result<()> {
    let keys: Vec<u32> = (0..values.len() as u32).collect();
    update_entries(map, &keys, values)
}

/// Sets entries of an array of maps, all in one call: after a single update the kernel waits until no program runs any
/// more that may have read the former map, which takes milliseconds; after a batch it waits once.
pub fn update_array_of_maps(map: BorrowedFd<'_>, entries: &[(u32, BorrowedFd<'_>)]) -> io::Result<()> {
    let keys: Vec<u32> = entries.iter().map(|(key, _)| *key).collect();
    let values: Vec<u32> = entries.iter().map(|(_, inner)| inner.as_raw_fd() as u32).collect();
    update_entries(map, &keys, &values)
}

/// Lets this process hold as many files open as it may: each map that is about to be swapped in is one.
pub fn raise_open_files() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure is plain integers and lives through the call.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return 0;
    }
    let before = limit.rlim_cur;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: as above.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } != 0 { before } else { limit.rlim_cur }
}

/// Gives an object a name in a bpf file system that keeps it alive.
pub fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    bpf(OBJ_PIN, &Attr::new().u64(0, path.as_ptr() as u64).fd(8, object)).map(drop)
}

/// Opens a pinned object.
pub fn get(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    bpf(OBJ_GET, &Attr::new().u64(0, path.as_ptr() as u64)).map(owned)
}

/// Whether a directory lies on a bpf file system.
pub fn is_bpffs(path: &Path) -> io::Result<bool> {
    let path = c_path(path)?;
    // SAFETY: the structure is plain integers; the path is a C string; both live through the call.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    if unsafe { libc::statfs(path.as_ptr(), &mut stat) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(stat.f_type as i64 == BPF_FS_MAGIC)
}

/// Reads a hash map, many entries in one call. Entries that come or go meanwhile may be missed or seen twice.
pub fn read_hash<K: aya::Pod, V: aya::Pod>(
    map: BorrowedFd<'_>,
    mut each: impl FnMut(&K, &V),
) -> io::Result<()> {
    entries::each(map, size_of::<K>(), size_of::<V>(), |key, value| {
        // SAFETY: the bytes are as many as the types have, and these are plain integers by `Pod`.
        let (key, value) = unsafe {
            (key.as_ptr().cast::<K>().read_unaligned(), value.as_ptr().cast::<V>().read_unaligned())
        };
        each(&key, &value);
    })
}

/// The coarse clock that programs read, in nanoseconds since some moment before the start.
pub fn monotonic_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure is plain integers and lives through the call, which cannot fail for this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &mut now) };
    (now.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(now.tv_nsec as u64)
}

/// The number of this thread's network namespace, as programs see it (Linux 5.14).
pub fn netns_cookie() -> io::Result<u64> {
    const SO_NETNS_COOKIE: libc::c_int = 71;
    // SAFETY: the call takes numbers.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let socket = owned(fd.into());
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the buffer is eight bytes and `length` says so; both live through the call.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &mut length,
        )
    };
    if answer != 0 { Err(io::Error::last_os_error()) } else { Ok(cookie) }
}

/// Moves this thread into a network namespace. For threads that do nothing else: there is no way back.
pub fn enter_netns(namespace: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the call takes numbers.
    let answer = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
    if answer != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Lets this thread, and no other of the process, run before ordinary ones.
pub fn raise_priority() -> io::Result<()> {
    const FIRST: libc::c_int = -20;
    // SAFETY: the call takes numbers. To Linux, process zero is the thread that calls.
    let answer = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, FIRST) };
    if answer != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Gives this thread a name, of which the kernel keeps fifteen bytes.
pub fn name_thread(name: &std::ffi::CStr) {
    // SAFETY: the kernel copies the name; there is nothing that it refuses.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_folder_is_no_bpf_file_system() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        assert!(!is_bpffs(folder.path()).expect("readable"));
    }

    /// Whether this process may make maps; says so when a test is skipped.
    fn may_make_maps() -> bool {
        let may = create_array(4, 1, 0).is_ok();
        if !may {
            println!("SKIPPED: making maps needs root");
        }
        may
    }

    #[test]
    fn an_array_reads_back_what_it_was_filled_with() {
        if !may_make_maps() {
            return;
        }
        let map = create_array(4, 3, 0).expect("a map");
        fill_array(map.as_fd(), &[7_u32, 8, 9]).expect("filled");
        assert_eq!(read_array::<u32>(map.as_fd(), 3).expect("read"), [7, 8, 9]);
        assert_eq!(read_array::<u32>(map.as_fd(), 8).expect("read"), [7, 8, 9], "with room for more");
        let info = map_info(map.as_fd()).expect("what it is");
        assert_eq!((info.key_size, info.value_size, info.entries_max), (4, 4, 3));
        let again = map_by_id(info.id).expect("opened");
        assert_eq!(map_info(again.as_fd()).expect("what it is"), info);
        assert!(fill_array(map.as_fd(), &[0_u32; 4]).is_err(), "there is no fourth entry");
    }

    #[test]
    fn entries_are_moved_as_bytes() {
        if !may_make_maps() {
            return;
        }
        const TYPE_HASH: u32 = 1;
        let map = create_map(TYPE_HASH, 8, 4096, 0).expect("a map");
        let map = map.as_fd();
        for number in 0..3000_u32 {
            let value = u64::from(number) * 3;
            let key = number.to_ne_bytes();
            assert!(entries::insert_new(map, &key, &value.to_ne_bytes()).expect("inserted"));
        }
        assert!(!entries::insert_new(map, &7_u32.to_ne_bytes(), &[0; 8]).expect("it is there"));
        entries::set(map, &8_u32.to_ne_bytes(), &[1; 8]).expect("set");
        entries::delete(map, &9_u32.to_ne_bytes()).expect("deleted");
        entries::delete(map, &9_u32.to_ne_bytes()).expect("deleted already");
        let mut seen = std::collections::BTreeMap::new();
        read_hash::<u32, u64>(map, |key, value| {
            seen.insert(*key, *value);
        })
        .expect("read");
        assert_eq!((seen.len(), seen[&7], seen[&8]), (2999, 21, u64::from_ne_bytes([1; 8])));
        assert_eq!(entries::lookup(map, &9_u32.to_ne_bytes(), 8).expect("asked"), None);
        let mut keys = 0;
        let mut at = entries::next_key(map, None, 4).expect("a first");
        while let Some(key) = at {
            keys += 1;
            at = entries::next_key(map, Some(&key), 4).expect("a next");
        }
        assert_eq!(keys, 2999);
    }

    #[test]
    fn as_many_files_may_be_open_as_the_system_allows() {
        let most = raise_open_files();
        assert!(most > 0 && raise_open_files() == most);
    }

    #[test]
    fn one_namespace_has_one_number() {
        assert_eq!(netns_cookie().expect("a number"), netns_cookie().expect("a number"));
    }
}
