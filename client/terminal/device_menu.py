"""The choice of a microphone and then a loudspeaker, one key each, while a conversation goes on."""

from dataclasses import dataclass, replace

from duplex.client.sound.sound_card import SoundDevices
from duplex.errors import ClientError

# The keys of the first devices of a list.
NUMBERS = "123456789"


@dataclass(frozen=True)
class DeviceMenu:
    """What is shown and what is chosen so far."""

    # (what SoundDevices takes, name) of each microphone and each loudspeaker.
    inputs: tuple[tuple[str, str], ...]
    outputs: tuple[tuple[str, str], ...]
    # Those in use, and with the new microphone once it is chosen.
    chosen: SoundDevices = SoundDevices()
    is_output: bool = False

    def press(self, key: str) -> tuple["DeviceMenu | None", SoundDevices | None]:
        """After a key: the menu, None when it is done, and then what was chosen, if anything."""
        if key in ("\x1b", "d", "q"):
            return None, None
        offered = self.outputs if self.is_output else self.inputs
        place = NUMBERS.find(key) if key in NUMBERS else -1
        if key not in ("\r", "\n") and not 0 <= place < len(offered):
            return self, None
        side = "output" if self.is_output else "input"
        chosen = replace(self.chosen, **{side: offered[place][0]}) if place >= 0 else self.chosen
        if self.is_output:
            return None, chosen
        return replace(self, chosen=chosen, is_output=True), None

    def lines(self) -> list[str]:
        """A head and one line for each device; a star before the one in use."""
        offered, now = (
            (self.outputs, self.chosen.output)
            if self.is_output
            else (self.inputs, self.chosen.input)
        )
        head = "loudspeaker" if self.is_output else "microphone"
        rows = [
            f"{'*' if device == now else ' '} {number}  {name}"
            for number, (device, name) in zip(NUMBERS, offered, strict=False)
        ]
        return [f"{head}: a number chooses · ⏎ as it is · esc back", *rows]


def opened(card, view) -> DeviceMenu | None:
    """The menu of a card's devices; None where there are none, and the view says so."""
    inputs, outputs = card.listed()
    if not inputs and not outputs:
        view.note("there are no sound devices to choose from")
        return None
    return DeviceMenu(inputs, outputs, card.in_use)


async def use(card, view, chosen: SoundDevices) -> None:
    """Change to these devices; where they cannot be used those before go on."""
    try:
        await card.choose(chosen)
    except ClientError as error:
        view.note(f"{error}; the devices before go on")
    else:
        view.note(f"now: {card.name}")
