"""pytorchexample: the network, the data, training and testing."""

import json
import os
import struct
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - as everybody calls it
from torch import nn
from torch.utils.data import DataLoader, Dataset

Batch = dict[str, torch.Tensor]


class Net(nn.Module):
    """A small network for images of 32x32: two convolutions, three full layers."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return a score per class, shape (N, 2)."""
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        x = torch.flatten(x, 1)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        scores: torch.Tensor = self.fc3(x)
        return scores


class Cohort(Dataset[Batch]):
    """The radiographs of one split under /train/data: `img`, (1, 32, 32), and `label`, 0 or 1."""

    def __init__(self, split: str) -> None:
        """Read which cases there are; images are read when they are asked for."""
        self.folder = Path(os.environ.get("PHT_DATA", "/train/data"))
        self.cases = json.loads((self.folder / "datalist.json").read_text())[split]

    def __len__(self) -> int:
        """Return how many images there are."""
        return len(self.cases)

    def __getitem__(self, index: int) -> Batch:
        """Return one image with its label."""
        case = self.cases[index]
        data = (self.folder / case["image"]).read_bytes()
        columns, rows = struct.unpack_from("<2h", data, 42)
        pixels = np.frombuffer(data, "<u2", rows * columns, 352).reshape(1, rows, columns)
        img = torch.from_numpy(pixels.astype(np.float32) / 65535)
        img = F.interpolate(img[None], size=(32, 32), mode="area")[0]
        return {"img": (img - 0.5) / 0.5, "label": torch.tensor(int(case["label"]))}


def load_data(batch_size: int) -> tuple[DataLoader[Batch], DataLoader[Batch]]:
    """Load the station's cohort: training and validation patients."""
    trainloader = DataLoader(Cohort("training"), batch_size=batch_size, shuffle=True)
    testloader = DataLoader(Cohort("validation"), batch_size=batch_size)
    return trainloader, testloader


def train(
    net: nn.Module, trainloader: DataLoader[Batch], epochs: int, lr: float, device: torch.device
) -> float:
    """Train the model on the training set; return the mean loss."""
    net.to(device)
    criterion = nn.CrossEntropyLoss().to(device)
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)
    net.train()
    running_loss = 0.0
    for _ in range(epochs):
        for batch in trainloader:
            images, labels = batch["img"].to(device), batch["label"].to(device)
            optimizer.zero_grad()
            loss = criterion(net(images), labels)
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
    return running_loss / (epochs * len(trainloader))


def test(net: nn.Module, testloader: DataLoader[Batch], device: torch.device) -> tuple[float, float]:
    """Test the model; return the mean loss and the share that it gets right."""
    net.to(device)
    net.eval()
    criterion = nn.CrossEntropyLoss()
    correct, loss = 0, 0.0
    with torch.no_grad():
        for batch in testloader:
            images, labels = batch["img"].to(device), batch["label"].to(device)
            outputs = net(images)
            loss += criterion(outputs, labels).item()
            correct += int((outputs.argmax(1) == labels).sum())
    return loss / len(testloader), correct / sum(len(batch["label"]) for batch in testloader)


def initial_weights() -> nn.Module:
    """Return what the first round starts from, the same for everybody who asks."""
    torch.manual_seed(1)
    return Net()
