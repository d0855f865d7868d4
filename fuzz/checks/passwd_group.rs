//! passwd and group of an image: digits are a number, no id is out of range, a user who was found is in the primary group.

use berth_runtime::look_up_user;

pub(crate) fn check(input: (&str, &str, &str)) {
    let (user, passwd, group) = input;
    let Ok(identity) = look_up_user(user, passwd, group) else { return };
    let largest = i32::MAX.unsigned_abs();
    assert!(identity.uid <= largest && identity.gid <= largest);
    assert!(identity.groups.iter().all(|gid| *gid <= largest));
    assert!(identity.groups.windows(2).all(|pair| pair[0] < pair[1]));
    let name = user.split(':').next().unwrap_or_default();
    if !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit()) {
        assert_eq!(Some(identity.uid), name.parse().ok());
    }
    assert!(identity.home.starts_with('/') && !identity.home.contains('\n'));
}
