//! Which channels a session has, and what a message of the client means on the streams behind them.

use super::*;

#[test]
fn a_command_has_the_streams_it_asked_for_and_always_an_error_channel() {
    let streams = StreamOptions { stdin: true, stdout: true, stderr: false, tty: true };
    let numbers: Vec<u8> = compile_command(streams).iter().map(|c| c.number).collect();
    assert_eq!(numbers, [3, 0, 1, 4]);
    let silent = compile_command(StreamOptions { stdin: true, ..StreamOptions::default() });
    assert_eq!(silent.iter().filter(|c| c.greeting.is_some()).count(), 1);
}

#[test]
fn a_port_has_two_channels_that_name_it() {
    let channels = compile_ports(&[80, 443]);
    let numbers: Vec<u8> = channels.iter().map(|c| c.number).collect();
    assert_eq!(numbers, [1, 0, 3, 2]);
    assert!(channels[2..].iter().all(|c| c.greeting == Some(vec![0xbb, 0x01])));
    assert!(channels.iter().all(|c| c.inward == (c.number % 2 == 0)));
    let many: Vec<u16> = (1..=200).collect();
    assert!(compile_ports(&many).iter().all(|c| c.number < CLOSE));
}

#[test]
fn a_close_ends_one_channel_and_what_follows_on_it_is_dropped() {
    let mut open = BTreeMap::from([(0, 3), (4, 7)]);
    assert_eq!(compile_frames(&mut open, &[0, b'x']), Some(spdy::data(3, b"x", false)));
    assert_eq!(compile_frames(&mut open, &[CLOSE, 0]), Some(spdy::data(3, b"", true)));
    assert_eq!(compile_frames(&mut open, &[0, b'y']), None);
    assert_eq!(compile_frames(&mut open, &[CLOSE, 9]), None);
    assert_eq!(compile_frames(&mut open, &[CLOSE]), None);
    assert_eq!(compile_frames(&mut open, &[]), None);
    assert_eq!(compile_frames(&mut open, &[4, b'{']), Some(spdy::data(7, b"{", false)));
}

proptest::proptest! {
    #![proptest_config(crate::fuzz_cases(500))]

    #[test]
    fn any_messages_mean_something_or_nothing(
        messages in proptest::collection::vec(proptest::collection::vec(proptest::prelude::any::<u8>(), 0..12), 0..20),
        ports in proptest::collection::vec(proptest::prelude::any::<u16>(), 0..70),
    ) {
        let channels = compile_ports(&ports);
        let mut open: BTreeMap<u8, u32> = channels.iter().map(|c| (c.number, u32::from(c.number) * 2 + 1)).collect();
        let mut were_open = open.len();
        for message in &messages {
            if let Some(frames) = compile_frames(&mut open, message) {
                assert!(frames.len() <= message.len() + 8);
            }
            assert!(open.len() <= were_open, "no message opens a channel");
            were_open = open.len();
        }
    }
}
