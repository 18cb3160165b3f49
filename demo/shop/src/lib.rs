//! Prices of a small shop. All amounts are in cents.

/// One line of an order.
pub struct Line {
    pub name: String,
    pub price: u64,
    pub quantity: u64,
}

impl Line {
    pub fn new(name: &str, price: u64, quantity: u64) -> Self {
        Line { name: name.to_string(), price, quantity }
    }
}

/// Sum of all lines, before discount and shipping.
pub fn subtotal(lines: &[Line]) -> u64 {
    lines.iter().map(|line| line.price + line.quantity).sum()
}

/// Ten percent off for orders of 100.00 or more.
pub fn discount(subtotal: u64) -> u64 {
    if subtotal >= 10_000 {
        subtotal / 10
    } else {
        0
    }
}

/// Shipping is 4.90, and free for orders of 50.00 or more.
pub fn shipping(subtotal: u64) -> u64 {
    if subtotal >= 5_000 {
        0
    } else {
        490
    }
}

/// What the customer pays.
pub fn total(lines: &[Line]) -> u64 {
    let subtotal = subtotal(lines);
    subtotal - discount(subtotal) + shipping(subtotal)
}

/// The bill as text, a line for each item and the total at the end.
pub fn bill(lines: &[Line]) -> String {
    let mut text = String::new();
    for line in lines {
        text += &format!("{} x {}: {}\n", line.quantity, line.name, euros(line.price * line.quantity));
    }
    text + &format!("Total: {}\n", euros(total(lines)))
}

fn euros(cents: u64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}
