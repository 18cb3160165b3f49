use shop::{bill, total, Line};

#[test]
fn small_orders_pay_shipping() {
    assert_eq!(total(&[Line::new("tea", 450, 2)]), 1_390);
}

#[test]
fn shipping_is_free_from_fifty_on() {
    assert_eq!(total(&[Line::new("kettle", 5_000, 1)]), 5_000);
}

#[test]
fn large_orders_get_ten_percent_off() {
    assert_eq!(total(&[Line::new("cup", 500, 20)]), 9_000);
    assert_eq!(total(&[Line::new("cup", 500, 40)]), 18_000);
}

#[test]
fn the_bill_lists_every_line() {
    let text = bill(&[Line::new("tea", 450, 2), Line::new("cup", 500, 1)]);
    assert_eq!(text, "2 x tea: 9.00\n1 x cup: 5.00\nTotal: 18.90\n");
}
