"""A hospital's settings with every section filled; `settings.example.toml` is this, rendered."""

from policies.policy import ConsentMode, PurposeCode, RequesterClass
from station.settings.dicom import PacsSettings, ReceiverSettings
from station.settings.model import StationSettings
from station.settings.outside import DcatSettings
from station.settings.sections import (
    CeilingSettings,
    CollectionSettings,
    HospitalSettings,
    OrchestratorSettings,
    ServiceSettings,
)


def example() -> StationSettings:
    """Return a hospital's settings with every section filled; `settings.example.toml` is this, rendered."""
    return StationSettings(
        name="hospital-a",
        orchestrator=OrchestratorSettings(
            url="https://orchestrator.example.org",
            mirror_url="https://orchestrator.example.org/mirror",
            ca_file="orchestrator-ca.pem",
        ),
        services=ServiceSettings(separation="users"),
        ceilings=CeilingSettings(memory_mib=16_384, cpus=4.0),
        hospital=HospitalSettings(
            operator_approval="training",
            consent_max_age_days=7,
            quiet_hours=(("22:00", "06:00"),),
            timezone="Europe/Amsterdam",
        ),
        receiver=ReceiverSettings(
            enabled=True,
            address="0.0.0.0",  # noqa: S104 - an example of the key, not a listener
            feeds=(("BUCKY-ROOM-1", "PHT-CXR", "chest-radiographs"),),
            tls_ca_file="dicom-ca.pem",
            tls_certificate_file="receiver.pem",
            tls_key_file="receiver.key",
        ),
        pacs=(
            PacsSettings(
                name="main",
                host="pacs.example.org",
                ae_title="PACS",
                calling_ae_title="PHT-STATION",
                tls_ca_file="dicom-ca.pem",
                tls_certificate_file="receiver.pem",
                tls_key_file="receiver.key",
                hours=(("19:00", "06:00"),),
            ),
        ),
        dcat=DcatSettings(
            base_url="https://data.hospital-a.example",
            access_url="https://data.hospital-a.example/access",
            contact_email="data@hospital-a.example",
            publisher_name="Hospital A",
            publisher_email="info@hospital-a.example",
            hdab_name="Health data access body",
            hdab_page="https://hdab.example/contact",
            description="Beelden van de afdeling radiologie, gepseudonimiseerd.",
            provenance="Uit het PACS van het ziekenhuis; gepseudonimiseerd volgens DICOM PS3.15 bijlage E.",
            intended_use="Wetenschappelijk onderzoek naar de gezondheid; methoden voor radiologie.",
            population="Volwassen patienten van het ziekenhuis.",
            keywords=("radiologie", "thorax"),
            minimum_age=20,
            maximum_age=90,
        ),
        collections=(
            CollectionSettings(
                name="chest-radiographs",
                consent_mode=ConsentMode.OPT_IN,
                legal_ground="GDPR art. 9(2)(a) and art. 24 UAVG: explicit consent",
                marking="patient",
                requester_classes=(RequesterClass.PARTICIPANT, RequesterClass.NON_PROFIT),
                purposes=(PurposeCode.METHOD_DEVELOPMENT, PurposeCode.HEALTH_RESEARCH),
                countries=("NL", "BE", "DE"),
            ),
        ),
    )
