#ifdef __CLING__
#pragma link off all globals;
#pragma link off all classes;
#pragma link off all functions;
#pragma link C++ class Belle2::RelationsInterface<TObject>+;
#pragma link C++ class Belle2::DigitBase+;
#pragma link C++ class Belle2::PXDDigit+;
#pragma link C++ class Belle2::EventMetaData+;
#pragma link C++ class Belle2::FileMetaData+;
#pragma link C++ class Belle2::CDCHit+;
#pragma link C++ class Belle2::Waveform+;
#pragma link C++ class Belle2::ECLDsp+;
#pragma link C++ class Belle2::Trigger+;
#pragma link C++ class Belle2::BackgroundMetaData+;
#endif
