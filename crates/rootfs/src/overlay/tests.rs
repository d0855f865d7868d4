use super::*;

#[test]
fn incomplete_plans_are_refused() {
    let none = OverlayRootfs::default();
    assert!(matches!(none.mount_detached(), Err(OverlayError::NoLayer)));
    let half = OverlayRootfs { upper: Some("/u".into()), ..OverlayRootfs::default() };
    let error = half.mount_detached().unwrap_err();
    assert!(matches!(error, OverlayError::WritablePair));
    assert_eq!(error.class(), ErrorClass::InvalidArgument);
}
